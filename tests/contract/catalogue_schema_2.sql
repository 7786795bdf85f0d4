BEGIN TRANSACTION;
CREATE TABLE attribute (
	name TEXT NOT NULL, 
	type TEXT NOT NULL, 
	unit TEXT, 
	description TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "attribute" VALUES('zenith','number','deg','zenith angle');
INSERT INTO "attribute" VALUES('label','string',NULL,'a text');
INSERT INTO "attribute" VALUES('simulated','boolean',NULL,'a flag');
INSERT INTO "attribute" VALUES('calibrated','date',NULL,'a date');
INSERT INTO "attribute" VALUES('seed','integer',NULL,'a large number');
INSERT INTO "attribute" VALUES('shifted','time',NULL,'a time');
CREATE TABLE attribute_value (
	path TEXT NOT NULL, 
	name TEXT NOT NULL, 
	number NUMERIC, 
	text TEXT, 
	PRIMARY KEY (path, name), 
	FOREIGN KEY(path) REFERENCES file (path) ON DELETE CASCADE
);
INSERT INTO "attribute_value" VALUES('/TAIGA/s/2017/a.001','zenith',30.5,NULL);
INSERT INTO "attribute_value" VALUES('/TAIGA/s/2017/a.001','label',NULL,'ü ''%
');
INSERT INTO "attribute_value" VALUES('/TAIGA/s/2017/a.001','simulated',1,NULL);
INSERT INTO "attribute_value" VALUES('/TAIGA/s/2017/a.001','calibrated',NULL,'2017-09-30');
INSERT INTO "attribute_value" VALUES('/TAIGA/s/2017/a.001','seed',4611686018427387905,NULL);
INSERT INTO "attribute_value" VALUES('/TAIGA/s/2017/a.001','shifted',NULL,'0999-01-01T00:00:00.000001');
INSERT INTO "attribute_value" VALUES('/MAGIC/s/x','label',NULL,'m');
INSERT INTO "attribute_value" VALUES('/TAIGA/s/2017/b.001','zenith',13,NULL);
CREATE TABLE counter (
	name TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "counter" VALUES('revision',6);
CREATE TABLE directory (
	path TEXT NOT NULL, 
	parent TEXT NOT NULL, 
	PRIMARY KEY (path)
);
INSERT INTO "directory" VALUES('/MAGIC','');
INSERT INTO "directory" VALUES('/MAGIC/s','/MAGIC');
INSERT INTO "directory" VALUES('/TAIGA','');
INSERT INTO "directory" VALUES('/TAIGA/s','/TAIGA');
INSERT INTO "directory" VALUES('/TAIGA/s/2017','/TAIGA/s');
CREATE TABLE event_parameter (
	experiment TEXT NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (experiment, name)
);
INSERT INTO "event_parameter" VALUES('TAIGA','width');
CREATE TABLE file (
	path TEXT NOT NULL, 
	parent TEXT NOT NULL, 
	site TEXT NOT NULL, 
	source TEXT, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT, 
	checksum TEXT, 
	adler32 TEXT, 
	format TEXT, 
	experiment TEXT, 
	state TEXT, 
	reason TEXT, 
	run BIGINT, 
	night TEXT, 
	time_start TEXT, 
	time_end TEXT, 
	telescope BIGINT, 
	cluster BIGINT, 
	events BIGINT, 
	revision BIGINT, 
	attributes TEXT NOT NULL, 
	PRIMARY KEY (path)
);
INSERT INTO "file" VALUES('/TAIGA/s/2017/a.001','/TAIGA/s/2017','s','2017/a.001',10,5,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','00000001','taiga-raw','TAIGA','registered',NULL,7,'2017-10-28','2017-10-28T16:01:02.345678','2017-10-28T17:00:00.000000',1,21,10,1,'{"zenith": 30.5, "label": "\u00fc ''%\n", "simulated": 1, "calibrated": "2017-09-30", "seed": 4611686018427387905, "shifted": "0999-01-01T00:00:00.000001"}');
INSERT INTO "file" VALUES('/TAIGA/s/2017/b.001','/TAIGA/s/2017','s','2017/b.001',11,5,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','00000001','taiga-raw','TAIGA','registered',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,6,'{"zenith": 13.0}');
INSERT INTO "file" VALUES('/TAIGA/s/gone','/TAIGA/s','s','gone',10,5,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','00000001','taiga-raw','TAIGA','missing',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,3,'{}');
INSERT INTO "file" VALUES('/TAIGA/s/bad','/TAIGA/s','s','bad',10,5,'','','taiga-raw','TAIGA','quarantined','cut',NULL,NULL,NULL,NULL,NULL,NULL,NULL,4,'{}');
INSERT INTO "file" VALUES('/MAGIC/s/x','/MAGIC/s','s','x',10,5,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','00000001','taiga-raw','MAGIC','registered',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,5,'{"label": "m"}');
CREATE TABLE image_event (
	experiment TEXT NOT NULL, 
	run BIGINT NOT NULL, 
	event BIGINT NOT NULL, 
	telescope INTEGER NOT NULL, 
	cleaning TEXT NOT NULL, 
	dataset TEXT, 
	image_file TEXT, 
	image_row_group BIGINT, 
	image_row BIGINT, 
	parameters TEXT NOT NULL, 
	PRIMARY KEY (experiment, run, event, telescope, cleaning)
);
INSERT INTO "image_event" VALUES('TAIGA',7,3,1,'none','u','p',1,2,'{"width": 0.25}');
CREATE TABLE replica (
	path TEXT NOT NULL, 
	url TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	checksum TEXT NOT NULL, 
	verified TEXT NOT NULL, 
	PRIMARY KEY (path, url), 
	FOREIGN KEY(path) REFERENCES file (path) ON DELETE CASCADE
);
INSERT INTO "replica" VALUES('/TAIGA/s/2017/a.001','hdfs://h/a','hdfs','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','2026-01-01T00:00:00.000000');
CREATE INDEX file_by_format ON file (format);
CREATE INDEX ix_file_parent ON file (parent);
CREATE INDEX file_by_revision ON file (revision);
CREATE INDEX file_by_night ON file (experiment, night);
CREATE INDEX file_by_site ON file (site);
CREATE INDEX file_by_events ON file (events);
CREATE INDEX file_by_run ON file (experiment, run);
CREATE INDEX ix_directory_parent ON directory (parent);
CREATE INDEX value_by_number ON attribute_value (name, number);
CREATE INDEX value_by_text ON attribute_value (name, text);
COMMIT;
