"""The verdicts on a capture as one self-contained page: strings in, strings out."""
