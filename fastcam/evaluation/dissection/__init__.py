"""Network dissection: which concept each channel of a layer answers to, tables of that, and explanations in words."""
