"""Bounds: memory and disk stay within limits, whatever is slow, down or overloaded."""
