"""The tables of README and docs, made from measured results and from the package itself: nothing is typed by hand."""
