"""Translate: JSON to the contract's messages and back. The only package that sees both; pure.

bodies → [translate] → peers → [translate] → answers
"""
