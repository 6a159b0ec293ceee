"""A small reranker: it orders a handful of documents by how well they answer a query."""
