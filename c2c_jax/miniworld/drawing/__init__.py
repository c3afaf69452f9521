"""How each source of the mini world is drawn."""
