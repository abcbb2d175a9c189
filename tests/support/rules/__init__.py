"""Cases of gradient rules, one or more for each operator."""
