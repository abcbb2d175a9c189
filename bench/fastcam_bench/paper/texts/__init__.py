"""A text CNN on rated snippets of films, products, editorials and tweets, and what its heat for each word shows."""
