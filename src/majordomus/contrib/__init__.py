"""Small applications on the public API. Nothing in the house imports them, but the commands."""
