"""The mini world as a bench of recipes: which of them carries pictures to sounds, not only captions to captions?"""
