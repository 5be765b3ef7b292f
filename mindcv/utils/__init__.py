"""Helpers for every other package. They know nothing about models, data or training."""
