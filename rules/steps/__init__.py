"""What a journey does on its way, beside waiting, branching and sending: one step a module."""
