"""The code of pipelines: namespaces, drafts in S3, published versions, quality tests, and what is said about tables."""
