# 繁體中文

error-method-not-allowed = 此處不允許使用方法 { $method }。允許的方法：{ $allowed }。
error-unknown-filter-column = 沒有可用於篩選的欄位 { $column }。可用的欄位：{ $known }。
error-bad-path = 無法理解該路徑：{ $reason }。點段、錯誤的百分號編碼以及 Kubernetes 不接受的名稱會被拒絕。
error-nul-in-path = 路徑中包含 NUL 位元組。
error-body-too-large = 要求本文過大。上限為 { $limit } 位元組。
error-upstream-unreachable = 無法連線到 Kubernetes API 伺服器。
error-upstream-timeout = Kubernetes API 伺服器未及時回應。
error-conflict = 該物件已被他人修改：您傳送的 resourceVersion 為 { $sent }，目前為 { $current }。請重新載入後再次修改。
error-unsupported-media-type = 此處無法理解內容類型 { $type }。請使用 { $known }。
error-unknown-kind = 叢集中沒有類型 { $kind }。
error-malformed-body = 無法理解要求本文：{ $reason }
error-impersonation-needs-user = 使用 Impersonate-Group、Impersonate-Uid 和 Impersonate-Extra 標頭時還需要 Impersonate-User 標頭。
error-cross-site = 不接受來自其他網站的要求。
error-host-refused = 此處不接受主機 { $host }。
error-upgrade-refused = 無法升級此連線：{ $reason }
error-internal = 此伺服器發生問題。詳細資訊請見其記錄中與此回應的要求 ID 相符的項目。

warning-unknown-sort = 沒有可用於排序的欄位 { $key }；已使用預設順序。
warning-odd-sort = 無法理解 sortBy，已忽略。請使用成對的值，例如 d,creationTimestamp。
warning-odd-filter = 無法理解 filterBy，已忽略。請使用成對的值，例如 name,web。
warning-odd-paging = 無法理解 itemsPerPage 和 page；已顯示全部項目。

