"""Conclude: the claims of the report, what they rest on, and how they are judged."""
