"""What a translator is worth: retrieval, the gaps, generated sound, and a page that shows it."""
