"""The report page of a translator: its sounds, the two spaces and its scores, in one HTML file."""
