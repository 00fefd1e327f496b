"""A guest book: a small web service that shows what people wrote."""
