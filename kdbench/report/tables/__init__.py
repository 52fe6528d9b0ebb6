"""The tables of a report: each is a function of a comparison, and gives a value that knows nothing of Markdown or LaTeX."""
