"""The command line. Each verb has a module of its own."""
