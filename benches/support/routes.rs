//! Policies of many routes, as large sets have them.

use std::fmt::Write as _;

/// A policy of `routes` routes of the usual shapes: an app for each hundred, each with its own base.
pub fn policy_text(routes: usize) -> String {
    let mut text = String::new();
    for app in 0..routes.div_ceil(100) {
        if app > 0 {
            text.push_str("---\n");
        }
        write!(text, "version: 1\napp: app{app}\nbase: /v1/app{app}\nupstream: http://127.0.0.1:9000\n").expect("text");
        if app == 0 {
            text.push_str(
                "identity: { local: { preset: local, secret: env:SECRET_KEY, audience: items } }\n\
                 scopes: { items: All of items, items:read: Read, items:write: Write }\n\
                 permissions: { items:delete: Delete }\n\
                 roles: { admin: { can: \"*\", grants: [items] } }\n\
                 access: { self_or_admin: { any: [ { where: path.id == user.id }, { role: admin } ] } }\n",
            );
        }
        text.push_str("routes:\n");
        for route in 0..routes.min(100).div_ceil(10) {
            write!(
                text,
                "  GET /r{route}: {{ scope: items:read }}\n\
                 \x20 POST /r{route}: {{ scope: items:write }}\n\
                 \x20 GET /r{route}/{{id:int}}: {{ scope: items:read }}\n\
                 \x20 PUT /r{route}/{{id:int}}: {{ scope: items:write }}\n\
                 \x20 DELETE /r{route}/{{id:int}}: {{ permission: items:delete }}\n\
                 \x20 GET /r{route}/{{id:int}}/owner: self_or_admin\n\
                 \x20 GET /r{route}/{{id:int}}/parts/{{part}}: {{ scope: items:read }}\n\
                 \x20 POST /r{route}/{{id:int}}/parts: {{ scope: items:write }}\n\
                 \x20 GET /r{route}/files/**: authenticated\n\
                 \x20 GET /r{route}/about: public\n",
            )
            .expect("text");
        }
    }
    text
}
