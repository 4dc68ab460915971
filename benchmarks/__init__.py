"""Measurements of the real server; no part of the product, and nothing here is a test."""
