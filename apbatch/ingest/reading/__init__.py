"""What is in a file: its hashes, its format, what its reader says; in a process of its own where a parser is in C."""
