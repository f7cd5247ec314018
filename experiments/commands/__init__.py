"""Commands of the command line that come in groups, one group a file."""
