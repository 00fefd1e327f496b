FROM python:3.12-slim
ARG ID=pip
RUN --mount=type=secret,id=$ID cat /run/secrets/$ID
RUN --mount=type=secret,id=b,dst=/b,mode=0444,uid=5,gid=6 cat /b
RUN --mount=type=secret,target=/c/d cat /c/d
RUN --mount=type=secret,id=e,env=E --mount=type=secret,id=e,env=F,target=/f env
RUN --mount=type=secret,id=g,required --mount=type=secret,id=h,required=false true
