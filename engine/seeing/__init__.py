"""Seeing on demand: what a picture shows, which picture is meant, and a text in another language.

Each is a piece of work for the engine's thread (`jobs`), done with what the backend has loaded. Knows neither threads
nor conversations.
"""
