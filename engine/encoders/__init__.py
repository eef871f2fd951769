"""Frozen encoders: pictures, words and personas into feature tokens.

They know neither requests nor scheduling nor the language model.
"""
