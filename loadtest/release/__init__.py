"""Does the analysis of releases decide as promised? Generated requests through the shipped analyser."""
