"""The report as one HTML file: a view model of what it shows, a template, a style sheet, a script, and Vega to draw."""
