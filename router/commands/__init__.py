"""The commands of `turnout`: one file each, named in the table of `router.cli`."""
