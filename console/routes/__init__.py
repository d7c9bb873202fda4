"""What the API can be asked, one subject a module; ``console/api.py`` puts them together."""
