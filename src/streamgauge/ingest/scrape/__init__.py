"""Scraping: fetching metrics from targets, at fixed times, into the store."""
