module github.com/audit-trail/auditsdk

go 1.24
