# Every message that a person can see from the HTTP API. This language is complete; a test holds the others to it.

error-method-not-allowed = The method { $method } is not allowed here. Allowed: { $allowed }.
error-unknown-filter-column = There is no column { $column } to filter by. The columns are: { $known }.
error-bad-path = The path cannot be understood: { $reason }. Dot segments, broken percent-encoding and names that Kubernetes would not take are refused.
error-nul-in-path = The path contains a NUL byte.
error-body-too-large = The request body is too large. The limit is { $limit } bytes.
error-upstream-unreachable = The Kubernetes API server cannot be reached.
error-upstream-timeout = The Kubernetes API server did not answer in time.
error-conflict = The object was changed by somebody else: you sent resourceVersion { $sent }, the current one is { $current }. Load it again and repeat the change.
error-unsupported-media-type = The content type { $type } is not understood here. Use { $known }.
error-unknown-kind = The cluster knows no kind { $kind }.
error-malformed-body = The request body cannot be understood: { $reason }
error-impersonation-needs-user = Impersonate-Group, Impersonate-Uid and Impersonate-Extra headers need an Impersonate-User header as well.
error-cross-site = Requests from other web sites are refused.
error-host-refused = The host { $host } is not accepted here.
error-upgrade-refused = This connection cannot be upgraded: { $reason }
error-internal = Something went wrong in this server. Its log has the details under the request id of this answer.

warning-unknown-sort = There is no column { $key } to sort by; the order is the default one.
warning-odd-sort = sortBy cannot be understood and is ignored. Use pairs such as d,creationTimestamp.
warning-odd-filter = filterBy cannot be understood and is ignored. Use pairs such as name,web.
warning-odd-paging = itemsPerPage and page cannot be understood; all items are shown.

