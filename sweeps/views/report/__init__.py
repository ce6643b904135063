"""A sweep's page: data.py and experts.py gather numbers, words.py says them, page.py makes HTML of assets/."""
