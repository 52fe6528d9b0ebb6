"""What the numbers of a comparison can show: pure functions of arrays and frames, which read no file.

The page "Statistics" of the documentation explains each choice.
"""
