"""Contracts: one suite a port, which every adapter passes."""
