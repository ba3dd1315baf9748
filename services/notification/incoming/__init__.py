"""What comes in to us from people, before it has an effect: here lives the reading of their texts.

Doors and storage are elsewhere; what is in here is pure.
"""
