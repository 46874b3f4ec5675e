//! Pages: the dashboard and the incident page, rendered on the server.
