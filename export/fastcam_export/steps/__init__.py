"""The four steps of an export: plan, attach, check, package."""
