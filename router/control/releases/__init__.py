"""Where releases are kept, told to every process, and moved: by people, and by the evidence."""
