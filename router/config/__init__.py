"""The configuration file: its model, its decoding and what is wrong with it, mistake by mistake."""
