"""Speculative decoding in SGLang's CPU server: the operations it lacks, and the places where they go in."""
