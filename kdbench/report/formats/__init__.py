"""A table, or what to cite, as text: Markdown, LaTeX, CSV, HTML for notebooks, BibTeX, and for the terminal."""
