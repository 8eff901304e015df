# 简体中文

error-method-not-allowed = 此处不允许使用方法 { $method }。允许的方法：{ $allowed }。
error-unknown-filter-column = 没有可用于筛选的列 { $column }。可用的列：{ $known }。
error-bad-path = 无法理解该路径：{ $reason }。点段、错误的百分号编码以及 Kubernetes 不接受的名称会被拒绝。
error-nul-in-path = 路径中包含 NUL 字节。
error-body-too-large = 请求正文过大。上限为 { $limit } 字节。
error-upstream-unreachable = 无法连接 Kubernetes API 服务器。
error-upstream-timeout = Kubernetes API 服务器未及时响应。
error-conflict = 该对象已被他人修改：您发送的 resourceVersion 为 { $sent }，当前为 { $current }。请重新加载后再次修改。
error-unsupported-media-type = 此处无法理解内容类型 { $type }。请使用 { $known }。
error-unknown-kind = 集群中没有类型 { $kind }。
error-malformed-body = 无法理解请求正文：{ $reason }
error-impersonation-needs-user = 使用 Impersonate-Group、Impersonate-Uid 和 Impersonate-Extra 标头时还需要 Impersonate-User 标头。
error-cross-site = 不接受来自其他网站的请求。
error-host-refused = 此处不接受主机 { $host }。
error-upgrade-refused = 无法升级此连接：{ $reason }
error-internal = 此服务器出现问题。详细信息见其日志中与此响应的请求 ID 对应的记录。

warning-unknown-sort = 没有可用于排序的列 { $key }；已使用默认顺序。
warning-odd-sort = 无法理解 sortBy，已忽略。请使用成对的值，例如 d,creationTimestamp。
warning-odd-filter = 无法理解 filterBy，已忽略。请使用成对的值，例如 name,web。
warning-odd-paging = 无法理解 itemsPerPage 和 page；已显示全部项目。

