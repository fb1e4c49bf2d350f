"""The command line of featkit: parse, call the library, show."""
