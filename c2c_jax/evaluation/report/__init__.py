"""The page of a translator: its sounds, the two spaces, its scores, all in one file of HTML."""
