"""Reading and writing files safely: bounded readers, atomic writes, locks, folder scans, terminal output."""
