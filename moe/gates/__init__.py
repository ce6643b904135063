"""Gates: each decides which experts process an image. `options` holds their settings and names and imports no torch."""
