"""The mini world as a bench of recipes: which of them translates pictures, and not only captions?"""
