"""The C API's functions, for the class of inputs ``native``: arguments, the header's rules, results, sanitizers."""
