"""What each role may do in the bucket."""

from typing import Any


def policy_of(role: str, bucket: str) -> dict[str, Any]:
    """The policy of a role."""
    objects = ["s3:GetObject", "s3:GetObjectVersion"]
    lists = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation"]
    if role == "uploader":
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": [
                        *objects,
                        "s3:PutObject",
                        "s3:DeleteObject",
                        "s3:AbortMultipartUpload",
                        "s3:ListMultipartUploadParts",
                    ],
                    "Resource": [f"arn:aws:s3:::{bucket}/*/landing/*"],
                },
                {
                    "Effect": "Allow",
                    "Action": ["s3:ListBucket", "s3:ListBucketVersions"],
                    "Resource": [f"arn:aws:s3:::{bucket}"],
                    "Condition": {"StringLike": {"s3:prefix": ["*/landing/*"]}},
                },
                {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": [f"arn:aws:s3:::{bucket}/*"]},
            ],
        }
    if role not in ("query", "gateway"):
        objects += [
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
        ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": objects, "Resource": [f"arn:aws:s3:::{bucket}/*"]},
            {"Effect": "Allow", "Action": lists, "Resource": [f"arn:aws:s3:::{bucket}"]},
        ],
    }
