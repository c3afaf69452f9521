"""Benchmark of recipes on the mini world: how well do they translate images?"""
